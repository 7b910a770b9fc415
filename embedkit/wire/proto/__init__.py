"""Generated from proto/embedkit/v1 by tools/gen_proto.py."""
