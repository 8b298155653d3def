//! Names of activations, as flags and configuration files give them.

use std::fmt;
use std::str::FromStr;

use super::{Activation, LEAKY_RELU_FITS};
use crate::error::{Error, Result};

/// The slope below zero of a `leaky-relu` without a number: PyTorch's.
const SLOPE: f32 = 0.01;

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Pade { numerator, denominator } => return write!(f, "pade-{numerator}/{denominator}"),
            Self::LeakyRelu(SLOPE) => "leaky-relu",
            Self::LeakyRelu(slope) => return write!(f, "leaky-relu-{slope}"),
            Self::Relu => "relu",
            Self::PRelu => "prelu",
            Self::Selu => "selu",
            Self::Swish => "swish",
            Self::Softplus => "softplus",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
            Self::Identity => "identity",
        };
        f.write_str(name)
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.trim().to_ascii_lowercase();
        if let Some(slope) = name.strip_prefix("leaky-relu-").and_then(|slope| slope.parse::<f32>().ok())
            && (0.0..1.0).contains(&slope)
        {
            return Ok(Self::LeakyRelu(slope));
        }
        let orders = LEAKY_RELU_FITS.iter().map(|&((numerator, denominator), _)| Self::Pade { numerator, denominator });
        let others = [
            Self::Relu,
            Self::LeakyRelu(SLOPE),
            Self::PRelu,
            Self::Selu,
            Self::Swish,
            Self::Softplus,
            Self::Tanh,
            Self::Sigmoid,
            Self::Identity,
        ];
        let known: Vec<Self> = orders.chain(others).collect();
        known.iter().copied().find(|activation| activation.to_string() == name).ok_or_else(|| {
            let names: Vec<String> = known.iter().map(Self::to_string).collect();
            let remedy = "a leaky-relu takes its slope, 0 or more and below 1, as in leaky-relu-0.2";
            Error::Usage(format!("unknown activation '{text}'; use one of {}; {remedy}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (numerator, denominator) in [(3, 3), (5, 4), (8, 8)] {
            let pade = Activation::Pade { numerator, denominator };
            assert_eq!(pade.to_string().parse::<Activation>().unwrap(), pade);
        }
        for activation in [Activation::Relu, Activation::PRelu, Activation::LeakyRelu(0.01), Activation::LeakyRelu(0.2)]
        {
            assert_eq!(activation.to_string().parse::<Activation>().unwrap(), activation);
        }
        assert_eq!("ReLU".parse::<Activation>().unwrap(), Activation::Relu);
        for bad in ["", "pade", "pade-9/9", "pade-5/3", "leaky-relu-1", "leaky-relu--0.1", "leaky-relu-nan", "gelu"] {
            let problem = bad.parse::<Activation>().unwrap_err().to_string();
            assert!(problem.contains("pade-5/4") && problem.contains("prelu"), "{bad}: {problem}");
        }
    }
}
