"""What is said over gRPC, as protobuf: `embeddings.proto`, and what `generate` makes of it.

`embeddings.binpb` is the schema as it was last published; a change that breaks its callers fails
a test.
"""
