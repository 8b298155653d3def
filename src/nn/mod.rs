//! Parts of networks and of their training: optimisers and learning-rate schedules.

pub mod optim;
