//! volume-manager/catalog
