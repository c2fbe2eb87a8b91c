//! Tests of the store on a fake keeper of frames.
