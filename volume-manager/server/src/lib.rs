//! volume-manager/server
