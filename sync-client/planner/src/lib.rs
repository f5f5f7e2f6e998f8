//! sync-client/planner
