"""Where objects lie: a folder, or a prefix of a bucket, and what each can do. Nothing here knows what a store is."""
