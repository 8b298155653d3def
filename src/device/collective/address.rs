//! Where processes meet that no MPI joins: at an address of the first one.

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::{Launch, Launcher};
use crate::error::{Error, Result};

/// Names the address, before all launchers' variables.
pub const RENDEZVOUS: &str = "OSSNET_RENDEZVOUS";

/// Ports between torchrun's own, which its agent may hold for its store, and ours.
const APART: u16 = 1000;

/// The first of the ports that a Slurm job's number chooses from, and how many there are.
const SLURM_PORTS: (u16, u64) = (20000, 10000);

/// A machine and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// What `variable` (an environment's look-up) says to the processes of `launch`.
    ///
    /// # Errors
    /// [`Error::Usage`] if nothing does, or what says it is no address.
    pub fn read(launch: &Launch, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if let Some(text) = variable(RENDEZVOUS) {
            let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
            return match parts {
                Some((host, port)) if !host.is_empty() => Ok(Self { host: host.trim_matches(['[', ']']).into(), port }),
                _ => Err(Error::Usage(format!("{RENDEZVOUS}={text} is no address; write HOST:PORT"))),
            };
        }
        if let (Some(host), Some(text)) = (variable("MASTER_ADDR"), variable("MASTER_PORT")) {
            let port = text.trim().parse::<u16>().map_err(|_| {
                Error::Usage(format!("the environment says MASTER_PORT={text}, which is no port; mend or unset it"))
            })?;
            return Ok(Self { host, port: port.checked_add(APART).unwrap_or_else(|| port - APART) });
        }
        let nodes = || variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"));
        let job = || variable("SLURM_JOB_ID").and_then(|text| text.parse::<u64>().ok());
        if let (Launcher::Slurm | Launcher::Pmi, Some(nodes), Some(job)) = (launch.launcher, nodes(), job()) {
            return Ok(Self { host: first_node(&nodes), port: SLURM_PORTS.0 + (job % SLURM_PORTS.1) as u16 });
        }
        let problem = format!("{} does not say where the first process is", launch.launcher);
        let remedy = format!("give all of them {RENDEZVOUS}=HOST:PORT of the first, with a free port");
        Err(Error::Usage(format!("{problem}; {remedy} (or MASTER_ADDR and MASTER_PORT)")))
    }

    /// Another port of the same machine.
    #[cfg(feature = "mpi")]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port }
    }

    /// What helps where processes do not meet.
    pub fn remedy(&self) -> String {
        format!("start all with the same {RENDEZVOUS}=HOST:PORT, a free port of the first one's machine")
    }

    /// A listener of the first process, which does not wait.
    ///
    /// # Errors
    /// [`Error::Device`] if the port is taken.
    pub fn listen(&self) -> Result<TcpListener> {
        let is_here = ["localhost", "127.0.0.1", "::1"].contains(&self.host.as_str());
        let bound = match is_here {
            true => TcpListener::bind((self.host.as_str(), self.port)),
            // Of both families, where the machine has both: the others may know the name by either.
            false => TcpListener::bind(("::", self.port)).or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse => Err(error),
                _ => TcpListener::bind(("0.0.0.0", self.port)),
            }),
        };
        let listener = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        listener.map_err(|error| Error::Device(format!("cannot listen at {self} ({error}); {}", self.remedy())))
    }

    /// A connection to it, if somebody listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The first name of a list as Slurm writes it: `gpu[07-09,12],login1` begins with `gpu07`.
fn first_node(list: &str) -> String {
    let end = list.find([',', '[']).unwrap_or(list.len());
    let (prefix, rest) = list.split_at(end);
    let Some(inside) = rest.strip_prefix('[') else { return prefix.into() };
    let number = &inside[..inside.find(['-', ',', ']']).unwrap_or(inside.len())];
    let suffix = inside.split_once(']').map_or("", |(_, rest)| rest.split([',', '[']).next().unwrap_or_default());
    format!("{prefix}{number}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(launcher: Launcher, words: &str) -> Result<Address> {
        let set: Vec<(&str, &str)> = words.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        let launch = Launch { launcher, rank: 0, size: 2, local: None };
        Address::read(&launch, |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn launchers_say_where_processes_meet() {
        use Launcher::{Environment, OpenMpi, Slurm};
        for (launcher, words, expected) in [
            (Environment, "MASTER_ADDR=node7 MASTER_PORT=29500", "node7:30500"),
            (Environment, "MASTER_ADDR=node7 MASTER_PORT=65000", "node7:64000"),
            (Environment, "MASTER_ADDR=node7 MASTER_PORT=29500 OSSNET_RENDEZVOUS=[::1]:4000", "::1:4000"),
            (OpenMpi, "OSSNET_RENDEZVOUS=10.0.0.1:4000", "10.0.0.1:4000"),
            (Slurm, "SLURM_JOB_ID=1234567 SLURM_STEP_NODELIST=gpu[07-09,12],login1", "gpu07:24567"),
            (Slurm, "SLURM_JOB_ID=7 SLURM_STEP_NODELIST=a1,b2 SLURM_JOB_NODELIST=z", "a1:20007"),
            (Slurm, "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n[3,5]-ib", "n3-ib:20007"),
            (Slurm, "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1 MASTER_ADDR=n2 MASTER_PORT=5", "n2:1005"),
        ] {
            assert_eq!(read(launcher, words).unwrap().to_string(), expected, "{words}");
        }
        for (launcher, words, part) in [
            (OpenMpi, "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=n1", "OSSNET_RENDEZVOUS=HOST:PORT"),
            (Environment, "MASTER_ADDR=a MASTER_PORT=many", "MASTER_PORT=many"),
            (Environment, "OSSNET_RENDEZVOUS=a", "HOST:PORT"),
        ] {
            let error = read(launcher, words).unwrap_err();
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{words}: {error}");
        }
    }
}
