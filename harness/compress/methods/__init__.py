"""One module per compression method: its class is `METHOD`. A module here and a yaml in `conf/method` are enough."""
