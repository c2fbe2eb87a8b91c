//! Tests of the state log on a fake keeper of frames.
