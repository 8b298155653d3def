//! What launchers say of the processes they start, by environment variables.

use std::fmt;

use crate::error::{Error, Result};

/// Who started the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Open MPI's mpirun.
    OpenMpi,
    /// A launcher that speaks PMI: MPICH's and Intel's mpiexec, or srun for them.
    Pmi,
    /// srun.
    Slurm,
    /// torchrun, or somebody who sets the same variables.
    Environment,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::OpenMpi => "mpirun",
            Launcher::Pmi => "mpiexec",
            Launcher::Slurm => "srun",
            Launcher::Environment => "torchrun (WORLD_SIZE)",
        })
    }
}

/// One process among those that were started together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Who started it.
    pub launcher: Launcher,
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Its number among those of its machine, if that is said.
    pub local: Option<usize>,
}

/// Names of a launcher's variables: size, rank, and the number on the machine.
const VARIABLES: [(Launcher, &str, &str, &[&str]); 4] = [
    (Launcher::OpenMpi, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", &["OMPI_COMM_WORLD_LOCAL_RANK"]),
    (Launcher::Pmi, "PMI_SIZE", "PMI_RANK", &["MPI_LOCALRANKID", "SLURM_LOCALID"]),
    // Of the step that srun began, not of the job: a batch script, which is one process, has SLURM_NTASKS and SLURM_PROCID.
    (Launcher::Slurm, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", &["SLURM_LOCALID"]),
    (Launcher::Environment, "WORLD_SIZE", "RANK", &["LOCAL_RANK"]),
];

impl Launch {
    /// What `variable` (an environment's look-up) says; `None` if nobody says anything. Where several launchers do, as mpirun
    /// within a Slurm job, the innermost stands.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the variable that is missing or no number.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => text.trim().parse::<usize>().map(Some).map_err(|_| {
                Error::Usage(format!("the environment says {name}={text}, which is no number; unset it or mend it"))
            }),
        };
        for (launcher, size_name, rank_name, local_names) in VARIABLES {
            let Some(size) = number(size_name)? else { continue };
            let rank = match number(rank_name)? {
                Some(rank) if rank < size => rank,
                None if size <= 1 => 0,
                None => {
                    let problem = format!("the environment says {size_name}={size} and no {rank_name}");
                    return Err(Error::Usage(format!("{problem}; set both, or unset {size_name} for one process")));
                }
                Some(rank) => {
                    let problem = format!("the environment says {rank_name}={rank} of {size_name}={size}");
                    return Err(Error::Usage(format!("{problem}; ranks count from 0: mend or unset them")));
                }
            };
            let local = local_names.iter().find_map(|name| number(name).transpose()).transpose()?;
            return Ok(Some(Self { launcher, rank, size, local }));
        }
        Ok(None)
    }

    /// Whether the launcher has made these processes ranks of MPI, by what `variable` says: torchrun does not, and srun only where it
    /// is asked to (`--mpi=pmix`; that of `--mpi=pmi2` is [`Launcher::Pmi`]). An MPI that is started all the same ends them.
    pub fn has_mpi(&self, variable: impl Fn(&str) -> Option<String>) -> bool {
        match self.launcher {
            Launcher::OpenMpi | Launcher::Pmi => true,
            Launcher::Slurm => variable("PMIX_RANK").is_some(),
            Launcher::Environment => false,
        }
    }

    /// The variables by which launchers give the number of processes.
    pub fn sizes() -> impl Iterator<Item = &'static str> {
        VARIABLES.into_iter().map(|(_, size, ..)| size)
    }

    /// What this process's environment says.
    ///
    /// # Errors
    /// As [`Launch::read`].
    pub fn from_environment() -> Result<Option<Self>> {
        Self::read(|name| std::env::var(name).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks up in `NAME=value` words.
    fn look_up(words: &str) -> impl Fn(&str) -> Option<String> {
        let set: Vec<(&str, &str)> = words.split_whitespace().filter_map(|word| word.split_once('=')).collect();
        move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
    }

    /// The launch that they make.
    fn read(words: &str) -> Result<Option<Launch>> {
        Launch::read(look_up(words))
    }

    #[test]
    fn every_launcher_is_understood() {
        use Launcher::{Environment, OpenMpi, Pmi, Slurm};
        // Variables of the environment; who set them, the rank, the number of ranks, and the number on the machine.
        type Case = (&'static str, Option<(Launcher, usize, usize, Option<usize>)>);
        let table: [Case; 12] = [
            ("", None),
            ("HOME=/root RANK=3", None),
            // torchrun
            ("RANK=3 LOCAL_RANK=1 WORLD_SIZE=4 MASTER_ADDR=a MASTER_PORT=1", Some((Environment, 3, 4, Some(1)))),
            ("WORLD_SIZE=1", Some((Environment, 0, 1, None))),
            // Open MPI, also within a Slurm job and beside variables for PyTorch
            (
                "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_LOCAL_RANK=0",
                Some((OpenMpi, 2, 4, Some(0))),
            ),
            (
                "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_RANK=5 WORLD_SIZE=2",
                Some((OpenMpi, 5, 8, None)),
            ),
            // MPICH, Intel MPI, srun --mpi=pmi2
            ("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2", Some((Pmi, 1, 2, Some(1)))),
            ("PMI_RANK=6 PMI_SIZE=8 SLURM_LOCALID=2 SLURM_STEP_NUM_TASKS=8 SLURM_PROCID=6", Some((Pmi, 6, 8, Some(2)))),
            // srun
            ("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NTASKS=4", Some((Slurm, 3, 4, Some(1)))),
            // A batch script, and an array's task, are one process each.
            ("SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_ID=7", None),
            ("SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=64 SLURM_NTASKS=1", None),
            ("SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0", Some((Slurm, 0, 1, None))),
        ];
        for (words, expected) in table {
            let found = read(words).unwrap();
            let found = found.map(|launch| (launch.launcher, launch.rank, launch.size, launch.local));
            assert_eq!(found, expected, "{words}");
        }
    }

    /// What launchers set, as `env` printed it: torchrun of PyTorch 2.15, srun and sbatch of Slurm 22.05, Open MPI 4.1's mpirun. MPI
    /// joins those of mpirun, and of srun with `--mpi`.
    #[test]
    fn launchers_that_were_run_are_understood() {
        use Launcher::{Environment, OpenMpi, Pmi, Slurm};
        let torchrun = "OMP_NUM_THREADS=1 RANK=1 GROUP_RANK=0 ROLE_RANK=1 ROLE_NAME=default LOCAL_WORLD_SIZE=2 WORLD_SIZE=2 \
                        GROUP_WORLD_SIZE=1 ROLE_WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=33843 LOCAL_RANK=1 \
                        TORCHELASTIC_RESTART_COUNT=0 TORCHELASTIC_MAX_RESTARTS=0 TORCHELASTIC_USE_AGENT_STORE=True";
        // An array's task of two tasks; what runs in it has these too.
        let batch = "SLURM_ARRAY_JOB_ID=92 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MAX=4 \
                     SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_STEP=1 SLURM_JOBID=93 SLURM_JOB_ID=93 SLURM_JOB_NODELIST=n1 \
                     SLURM_NODELIST=n1 SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_NPROCS=2 SLURM_TASKS_PER_NODE=2";
        let first = format!("{batch} SLURM_LOCALID=0 SLURM_PROCID=0");
        let step = "SLURM_GTIDS=0,1 SLURM_STEPID=0 SLURM_STEP_ID=0 SLURM_STEP_NODELIST=n1 SLURM_STEP_NUM_NODES=1 \
                    SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 SLURM_LAUNCH_NODE_IPADDR=10.0.0.1";
        let srun = format!("{batch} {step} SLURM_LOCALID=1 SLURM_PROCID=1");
        let pmix =
            "PMIX_RANK=1 PMIX_NAMESPACE=slurm.pmix.15.0 PMIX_VERSION=4.2.2rc2 SLURM_PMIX_MAPPING_SERV=(vector,(0,1,2))";
        let pmi2 = "PMI_FD=13 PMI_JOBID=16.0 PMI_RANK=1 PMI_SIZE=2";
        let mpirun = "OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_NODE_RANK=1 \
                      OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMIX_RANK=1";
        assert_eq!(read(&first).unwrap(), None);
        for (words, launcher, mpi) in [
            (torchrun.to_string(), Environment, false),
            (srun.clone(), Slurm, false),
            (format!("{srun} {pmix}"), Slurm, true),
            (format!("{srun} {pmi2}"), Pmi, true),
            (format!("{first} {mpirun}"), OpenMpi, true),
        ] {
            let launch = read(&words).unwrap().unwrap();
            assert_eq!(launch, Launch { launcher, rank: 1, size: 2, local: Some(1) }, "{words}");
            assert_eq!(launch.has_mpi(look_up(&words)), mpi, "{words}");
        }
    }

    #[test]
    fn variables_that_make_no_sense_are_named() {
        let table = [
            ("WORLD_SIZE=2", "no RANK"),
            ("WORLD_SIZE=two RANK=0", "WORLD_SIZE=two"),
            ("WORLD_SIZE=2 RANK=2", "RANK=2"),
            ("OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=-1", "OMPI_COMM_WORLD_RANK=-1"),
        ];
        for (words, part) in table {
            let error = read(words).unwrap_err();
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{words}: {error}");
        }
    }
}
