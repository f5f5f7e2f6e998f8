//! volume-manager/client
