"""Tables whose columns have types: Parquet files, Arrow files, tables in memory."""
