//! What a buffer is for, and the part of a run that asked for it.

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Trainable weights.
    Parameter,
    /// Gradients of the weights.
    Gradient,
    /// What the optimiser remembers of each weight.
    OptimizerState,
    /// Running statistics of normalisations.
    NormBuffer,
    /// Activations that the backward pass will read.
    Saved,
    /// Activations and gradients that live for a few ops.
    Transient,
    /// An op's scratch.
    Workspace,
    /// Volumes, labels, coordinates.
    Data,
    /// Host memory on its way to a device.
    Staging,
    /// Results kept after the step.
    Output,
}

impl Role {
    /// Every role, in the order of reports.
    pub const ALL: [Role; 10] = [
        Role::Parameter,
        Role::Gradient,
        Role::OptimizerState,
        Role::NormBuffer,
        Role::Saved,
        Role::Transient,
        Role::Workspace,
        Role::Data,
        Role::Staging,
        Role::Output,
    ];

    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Role::Parameter => "parameter",
            Role::Gradient => "gradient",
            Role::OptimizerState => "optimizer_state",
            Role::NormBuffer => "norm_buffer",
            Role::Saved => "saved",
            Role::Transient => "transient",
            Role::Workspace => "workspace",
            Role::Data => "data",
            Role::Staging => "staging",
            Role::Output => "output",
        }
    }

    /// True for what a step's activations cost: saved, transient and workspace.
    pub fn is_activation(self) -> bool {
        matches!(self, Role::Saved | Role::Transient | Role::Workspace)
    }
}

/// Part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Building models and optimisers.
    Setup,
    /// Loading and preparing volumes.
    Data,
    /// Forward pass.
    Forward,
    /// Backward pass.
    Backward,
    /// Weight update.
    Optimizer,
    /// Validation and inference.
    Evaluate,
}

impl Phase {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Setup => "setup",
            Phase::Data => "data",
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::Optimizer => "optimizer",
            Phase::Evaluate => "evaluate",
        }
    }
}

/// Granted bytes by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleBytes(pub(super) [u64; Role::ALL.len()]);

impl RoleBytes {
    /// Bytes of one role.
    pub fn get(&self, role: Role) -> u64 {
        self.0[role as usize]
    }

    /// The same with nothing of one role.
    pub fn without(mut self, role: Role) -> Self {
        self.0[role as usize] = 0;
        self
    }

    /// Sum over all roles.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Saved, transient and workspace bytes.
    pub fn activations(&self) -> u64 {
        Role::ALL.into_iter().filter(|role| role.is_activation()).map(|role| self.get(role)).sum()
    }

    /// Roles and bytes, in the order of reports.
    pub fn iter(&self) -> impl Iterator<Item = (Role, u64)> + '_ {
        Role::ALL.into_iter().map(|role| (role, self.get(role)))
    }
}
