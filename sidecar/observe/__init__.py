"""The windows: what happened, told as records, numbers and lines. Nothing here changes what happens."""
