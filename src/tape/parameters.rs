//! The parameters and buffers of a model, under their official names.

use crate::device::{Backend, Device};
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// Identity of a parameter within its [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

/// Identity of a buffer within its [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(usize);

/// What a parameter is, for learning rates and initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Weight, bias, or slope of a PReLU.
    Weight,
    /// Coefficient of a Padé activation: has a learning rate of its own.
    Pade,
}

/// A trainable tensor.
pub struct Parameter {
    name: String,
    kind: ParameterKind,
    value: Tensor,
    gradient: Option<Tensor>,
    trainable: bool,
}

impl Parameter {
    /// Official name, for example `encoder.blocks.0.main_mapping.0.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the module that holds it: its layer in the ledger.
    pub fn module(&self) -> &str {
        module_of(&self.name)
    }

    /// What it is.
    pub fn kind(&self) -> ParameterKind {
        self.kind
    }

    /// Its weights.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Its gradient, if the last backward pass reached it.
    pub fn gradient(&self) -> Option<&Tensor> {
        self.gradient.as_ref()
    }

    /// Its gradient, for changing.
    pub fn gradient_mut(&mut self) -> Option<&mut Tensor> {
        self.gradient.as_mut()
    }

    /// Weights for writing and gradient for reading, for the optimiser.
    pub fn value_and_gradient(&mut self) -> (&mut Tensor, Option<&Tensor>) {
        (&mut self.value, self.gradient.as_ref())
    }

    /// Takes the gradient away.
    pub fn take_gradient(&mut self) -> Option<Tensor> {
        self.gradient.take()
    }

    /// Puts a gradient in place.
    pub fn set_gradient(&mut self, gradient: Tensor) {
        self.gradient = Some(gradient);
    }

    /// Exchanges the weights with `other`, of the same shape, and the roles of the two in the ledger.
    pub fn exchange_value(&mut self, other: &mut Tensor) {
        std::mem::swap(&mut self.value, other);
        self.value.retag(Role::Parameter);
        other.retag(Role::OptimizerState);
    }

    /// False if no gradient is wanted.
    pub fn trainable(&self) -> bool {
        self.trainable
    }

    /// Sets whether a gradient is wanted.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
    }
}

/// Running statistics of one normalisation, or a fixed table. Statistics are `[2, groups]`: mean, then variance.
struct NamedBuffer {
    name: String,
    value: Tensor,
    updates: u64,
}

/// Path of the module that holds the parameter or buffer `name`.
fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

/// All parameters and buffers of a model.
pub struct Parameters {
    device: Device,
    parameters: Vec<Parameter>,
    buffers: Vec<NamedBuffer>,
}

impl Parameters {
    /// None yet.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), parameters: Vec::new(), buffers: Vec::new() }
    }

    /// The device that holds them.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds a parameter, whose initial values `fill` writes (not called on a plan).
    ///
    /// # Errors
    /// No memory.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        kind: ParameterKind,
        shape: &[usize],
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<ParamId> {
        let name = name.into();
        let value = self.filled(&name, shape, Role::Parameter, fill)?;
        self.parameters.push(Parameter { name, kind, value, gradient: None, trainable: true });
        Ok(ParamId(self.parameters.len() - 1))
    }

    /// Adds a buffer, whose initial values `fill` writes (not called on a plan).
    ///
    /// # Errors
    /// No memory.
    pub fn add_buffer(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<BufferId> {
        let name = name.into();
        let value = self.filled(&name, shape, Role::NormBuffer, fill)?;
        self.buffers.push(NamedBuffer { name, value, updates: 0 });
        Ok(BufferId(self.buffers.len() - 1))
    }

    /// Asks for the memory before any value exists, so that the budget is what refuses an absurd size.
    fn filled(&self, name: &str, shape: &[usize], role: Role, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
        let device = &self.device;
        let empty = || device.in_op("initial weights", || Tensor::empty(device, shape, DType::F32, role));
        let mut tensor = device.in_layer(module_of(name), empty)?;
        match device.backend() {
            Backend::Cpu { .. } => fill(tensor.data_mut()),
            Backend::Cuda(_) => {
                let mut values = vec![0.0; tensor.len()];
                fill(&mut values);
                tensor.write(&values)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(tensor)
    }

    /// One parameter.
    pub fn get(&self, id: ParamId) -> &Parameter {
        &self.parameters[id.0]
    }

    /// All parameters, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter()
    }

    /// All parameters for writing, in the order they were added.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Parameter> {
        self.parameters.iter_mut()
    }

    /// Trainable scalars.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.value.len()).sum()
    }

    /// A buffer's tensor.
    pub fn buffer(&self, id: BufferId) -> &Tensor {
        &self.buffers[id.0].value
    }

    /// Names, values and numbers of updates of all buffers.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, &Tensor, u64)> {
        self.buffers.iter().map(|buffer| (buffer.name.as_str(), &buffer.value, buffer.updates))
    }

    /// Names, values and numbers of updates of all buffers, for loading.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = (&str, &mut Tensor, &mut u64)> {
        self.buffers.iter_mut().map(|buffer| (buffer.name.as_str(), &mut buffer.value, &mut buffer.updates))
    }

    /// Forgets all gradients and frees their memory.
    pub fn clear_gradients(&mut self) {
        self.parameters.iter_mut().for_each(|parameter| parameter.gradient = None);
    }

    pub(crate) fn take_gradient(&mut self, id: ParamId) -> Option<Tensor> {
        self.parameters[id.0].gradient.take()
    }

    pub(crate) fn set_gradient(&mut self, id: ParamId, gradient: Tensor) {
        self.parameters[id.0].gradient = Some(gradient);
    }

    pub(super) fn buffer_mut(&mut self, id: BufferId) -> &mut Tensor {
        &mut self.buffers[id.0].value
    }

    pub(super) fn count_update(&mut self, id: BufferId) {
        self.buffers[id.0].updates += 1;
    }
}
