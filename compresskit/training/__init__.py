"""The only room that imports TensorFlow: a checkpoint goes in, a checkpoint comes out."""

import os

# TensorFlow writes pages of notices to stderr while it is being imported; a learner should see errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
