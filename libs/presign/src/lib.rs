//! libs/presign
