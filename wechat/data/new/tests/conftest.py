pytest_plugins = ["sandbox.testing"]  # the fixture `user`
