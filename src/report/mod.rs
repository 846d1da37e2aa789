//! RunEvents to people and machines.
