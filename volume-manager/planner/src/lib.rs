//! volume-manager/planner
