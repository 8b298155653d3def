//! The kernels' PTX and the modules loaded from it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use cudarc::driver::result::function::set_function_attribute;
use cudarc::driver::sys::{CUfunction, CUfunction_attribute_enum as Attribute, CUmodule};
use cudarc::driver::{CudaContext, result};
use lzma_rust2::XzReader;

use super::{driver, ptx_codec};
use crate::error::{Error, Result};

/// One kernel file.
pub struct Module {
    /// Its name without the ending.
    pub name: &'static str,
    /// What nvcc made of it, encoded as `registers.rs` says and packed as xz.
    pub ptx: &'static [u8],
    /// The kernels in it.
    pub kernels: &'static [&'static str],
}

impl Module {
    /// The PTX, with a zero at the end.
    fn text(&self) -> Result<std::ffi::CString> {
        let mut text = String::new();
        let unpacked = XzReader::new(self.ptx, false).read_to_string(&mut text);
        let text = unpacked.ok().and_then(|_| std::ffi::CString::new(ptx_codec::decode(&text)).ok());
        text.ok_or_else(|| {
            Error::Device(format!("the kernels of {}.cu are damaged; build the program anew", self.name))
        })
    }
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Bytes of dynamic shared memory that need no permission.
const SHARED_BY_DEFAULT: u32 = 48 << 10;

/// The modules loaded so far.
pub(super) struct Modules {
    context: Arc<CudaContext>,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, CUmodule>,
    functions: HashMap<&'static str, (CUfunction, u32)>,
}

// SAFETY: handles of the driver may be used from any thread whose current context is theirs.
unsafe impl Send for Loaded {}

impl Modules {
    pub(super) fn new(context: Arc<CudaContext>) -> Self {
        Self { context, loaded: Mutex::default() }
    }

    /// The kernel of this name, allowed `shared` bytes of dynamic shared memory; and its name in the table.
    pub(super) fn function(&self, name: &str, shared: u32) -> Result<(&'static str, CUfunction)> {
        let mut loaded = self.loaded.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (name, (function, allowed)) = match loaded.functions.get_key_value(name) {
            Some((&name, &known)) => (name, known),
            None => {
                let (name, function) = loaded.find(name)?;
                (name, (function, SHARED_BY_DEFAULT))
            }
        };
        if shared > allowed {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a loaded module.
            unsafe { set_function_attribute(function, attribute, shared as i32) }
                .map_err(|e| driver::failed(&format!("giving kernel {name} {shared} bytes of shared memory"), e))?;
        }
        loaded.functions.insert(name, (function, allowed.max(shared)));
        Ok((name, function))
    }
}

impl Loaded {
    fn find(&mut self, name: &str) -> Result<(&'static str, CUfunction)> {
        let known = |module: &'static Module| Some((module, *module.kernels.iter().find(|&&kernel| kernel == name)?));
        let found = MODULES.iter().find_map(known);
        let (module, name) = found.ok_or_else(|| Error::Device(format!("there is no kernel {name}")))?;
        let handle = match self.modules.get(module.name) {
            Some(&handle) => handle,
            None => {
                let text = module.text()?;
                // SAFETY: PTX text that ends with a zero.
                let handle = unsafe { result::module::load_data(text.as_ptr().cast()) }
                    .map_err(|e| driver::failed(&format!("loading the kernels of {}.cu", module.name), e))?;
                self.modules.insert(module.name, handle);
                handle
            }
        };
        let text = std::ffi::CString::new(name).map_err(|_| Error::Device(format!("{name:?} is no kernel's name")))?;
        // SAFETY: a loaded module.
        unsafe { result::module::get_function(handle, text) }
            .map(|function| (name, function))
            .map_err(|e| driver::failed(&format!("finding kernel {name}"), e))
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        let loaded = self.loaded.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for (_, module) in loaded.modules.drain() {
            // SAFETY: loaded above and not unloaded since; its kernels are done, for the device waited for its stream.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}
