//! Ops: one folder an op.
