"""One model per file. A model knows the batch, and nothing of where it comes from."""

from lightning_app.models.base import TaskModel
from lightning_app.models.branchlstm import BranchLSTM
from lightning_app.models.channelmlp import ChannelMLP
from lightning_app.models.climatology import Climatology
from lightning_app.models.cnn3d import CNN3D
from lightning_app.models.dlinear import DLinear
from lightning_app.models.ealstm import EALSTM
from lightning_app.models.ensemble import Ensemble
from lightning_app.models.fields import FieldToFloat
from lightning_app.models.gru import GRU
from lightning_app.models.itransformer import ITransformer
from lightning_app.models.linear import Linear
from lightning_app.models.lstm import LSTM
from lightning_app.models.mlp import MLP
from lightning_app.models.nlinear import NLinear
from lightning_app.models.patchstg import PatchSTG
from lightning_app.models.patchtst import PatchTST
from lightning_app.models.repeat import Repeat
from lightning_app.models.resnet3d import ResNet3D
from lightning_app.models.rms import RMSRegression
from lightning_app.models.seasonal import SeasonalRepeat
from lightning_app.models.spatialsoftmax import SpatialSoftmaxCNN
from lightning_app.models.tcn import TCN
from lightning_app.models.tds import TDS
from lightning_app.models.tide import TiDE
from lightning_app.models.tsmixer import TSMixer

__all__ = [
    "CNN3D",
    "EALSTM",
    "GRU",
    "LSTM",
    "MLP",
    "TCN",
    "TDS",
    "BranchLSTM",
    "ChannelMLP",
    "Climatology",
    "DLinear",
    "Ensemble",
    "FieldToFloat",
    "ITransformer",
    "Linear",
    "NLinear",
    "PatchSTG",
    "PatchTST",
    "RMSRegression",
    "Repeat",
    "ResNet3D",
    "SeasonalRepeat",
    "SpatialSoftmaxCNN",
    "TSMixer",
    "TaskModel",
    "TiDE",
]
