"""LeRobot folders: Parquet files of episodes, and what their `meta` folder says of them."""
