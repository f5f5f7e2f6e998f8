//! libs/crypto
