"""Files that a column names, below a folder: arrays, images and volumes as payloads of fields."""
