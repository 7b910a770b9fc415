"""Generated from proto/inference by tools/gen_proto.py."""
