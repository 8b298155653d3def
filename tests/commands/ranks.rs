//! Several processes train as one: launched by mpirun, killed, interrupted, and gone on with in another number.
//!
//! What needs MPI runs where the program was built with `--features mpi` and mpirun is there, and says so where not.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::cli::{Outcome, PROGRAM, Place, data_set, json};
use crate::support::processes::{self, errors};

/// Four cases a step, one a pass; two steps an epoch.
const RUN: &str = "train --preset sample --data data --model o-net-small --points 64 --batch-size 1 --accumulate 4 \
                   --deterministic-reduce --threads 1";

/// For ten steps and two validations.
const SHORT: &str = "--epochs 5 --validate-every 3";

/// For sixty steps with a checkpoint behind each, so that there is time for a signal.
const LONG: &str = "--epochs 30 --validate-every 15 --save-every 0";

fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b", "c", "d", "e", "f", "g", "h"], &["v", "w"]);
    place
}

/// False, with a message, where the program has no MPI or the machine no mpirun.
fn mpi_is_there() -> bool {
    let launcher = Command::new("mpirun").arg("--version").output().is_ok_and(|output| output.status.success());
    match (cfg!(feature = "mpi"), launcher) {
        (true, true) => return true,
        (false, _) => eprintln!("SKIPPED: built without MPI; cargo test --features mpi --test commands ranks"),
        (true, false) => eprintln!("SKIPPED: no mpirun; apt-get install openmpi-bin"),
    }
    false
}

/// Containers may forbid one process to read another's memory, which Open MPI says in many words before it copies twice. Other tests run
/// beside: who waits leaves them the cores.
const MPI_VARIABLES: [(&str, &str); 2] =
    [("OMPI_MCA_btl_vader_single_copy_mechanism", "none"), ("OMPI_MCA_mpi_yield_when_idle", "1")];

/// The program on `ranks` processes.
fn mpirun(place: &Place, ranks: usize, arguments: &str) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string(), PROGRAM]);
    command.args(arguments.split_whitespace()).current_dir(place.path()).stdin(Stdio::null());
    command.envs(MPI_VARIABLES);
    command
}

fn on_ranks(place: &Place, ranks: usize, arguments: &str) -> Outcome {
    mpirun(place, ranks, arguments).output().unwrap().into()
}

/// Checkpoints, of the end and the best, are the same bytes.
fn assert_same(place: &Place, run: &str, other: &str) {
    for file in ["o-net-small.safetensors", "o-net-small.best.safetensors"] {
        let [one, two] = [run, other].map(|run| fs::read(place.at(&format!("{run}/{file}"))).unwrap());
        assert!(one == two, "{file} of {run} and {other} differ");
    }
}

/// One process that accumulates the cases, two and four that divide them: checkpoints are equal to the last byte. Only the first
/// process speaks and writes.
#[test]
fn checkpoints_do_not_depend_on_the_number_of_processes() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    place.run(&format!("{RUN} {SHORT} --quiet --out one")).succeeded();
    for ranks in [2, 4] {
        let outcome = on_ranks(&place, ranks, &format!("{RUN} {SHORT} --out run-{ranks}"));
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        assert_eq!(outcome.out.matches("checkpoint: ").count(), 1, "{}", outcome.out);
        let said = format!("{ranks} processes of 1 thread divide each step: 4 passes of batch 1");
        assert_eq!(outcome.err.matches(&said).count(), 1, "{}", outcome.err);
        assert_same(&place, "one", &format!("run-{ranks}"));
        // The plan of a rank is what its run costs, to the byte.
        let planned = place.run(&format!("memory --threads 1 --json --run run-{ranks} --ranks {ranks}")).succeeded();
        let costs = fs::read_to_string(place.at(&format!("run-{ranks}/o-net-small.costs.json"))).unwrap();
        assert_eq!(json(&planned)["peak_bytes"], json(&costs)["peak_bytes"]);
        let log = |run: &str| fs::read_to_string(place.at(&format!("{run}/log.jsonl"))).unwrap().lines().count();
        assert_eq!(log("one"), log(&format!("run-{ranks}")));
    }
    // The transport's own order of sums is another, but the run is whole.
    let free = RUN.replace("--deterministic-reduce", "");
    let outcome = on_ranks(&place, 2, &format!("{free} {SHORT} --quiet --json --out free"));
    assert_eq!(json(&outcome.succeeded())["steps"], 10);
}

/// With `--sync-norm` batch norms take the statistics of all four cases of a step: one process that makes their passes side by side,
/// two with two each and four with one end with the same bytes, and so does a run of two that four go on with.
#[test]
fn exact_statistics_do_not_depend_on_the_number_of_processes() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    let run = format!("{RUN} --sync-norm");
    place.run(&format!("{run} {SHORT} --quiet --out one")).succeeded();
    place.run(&format!("{RUN} {SHORT} --quiet --out apart")).succeeded();
    let read = |run: &str| fs::read(place.at(&format!("{run}/o-net-small.safetensors"))).unwrap();
    assert!(read("one") != read("apart"), "statistics of all cases are those of one");
    for ranks in [2, 4] {
        let outcome = on_ranks(&place, ranks, &format!("{run} {SHORT} --out run-{ranks}"));
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        assert_eq!(outcome.err.matches("batch norms take the statistics of all 4 cases").count(), 1, "{}", outcome.err);
        assert_same(&place, "one", &format!("run-{ranks}"));
        let planned = place.run(&format!("memory --threads 1 --json --run run-{ranks} --ranks {ranks}")).succeeded();
        let costs = fs::read_to_string(place.at(&format!("run-{ranks}/o-net-small.costs.json"))).unwrap();
        assert_eq!(json(&planned)["peak_bytes"], json(&costs)["peak_bytes"]);
    }
    place.run(&format!("{run} {LONG} --quiet --out long")).succeeded();
    let (stopped, _) = signalled(&place, libc::SIGUSR1, "--sync-norm", "stopped");
    assert_eq!(stopped.code, Some(130), "{}", stopped.err);
    on_ranks(&place, 4, "train --quiet --threads 1 --resume stopped").succeeded();
    assert_same(&place, "long", "stopped");
}

/// Starts a run in `run` on two processes and sends `signal` to the second one.
fn signalled(place: &Place, signal: i32, flag: &str, run: &str) -> (Outcome, f64) {
    let mut command = mpirun(place, 2, &format!("{RUN} {flag} {LONG} --quiet --out {run}"));
    let begun = place.at(&format!("{run}/o-net-small.safetensors"));
    processes::signalled(&mut command, &begun, signal, Some("OMPI_COMM_WORLD_RANK=1"))
}

/// A process that is killed takes all with it within ten seconds, and its number is named. One that is asked to stop stops all
/// at the same step, with all saved. In both cases others go on, as many as there are, and come to the same bits as one process
/// that nobody disturbed.
#[test]
fn processes_end_together_and_others_go_on() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    place.run(&format!("{RUN} {LONG} --quiet --out one")).succeeded();

    let (killed, seconds) = signalled(&place, libc::SIGKILL, "", "killed");
    assert!(killed.code != Some(0) && seconds < 10.0, "{:?} after {seconds} s: {}", killed.code, killed.err);
    assert!(killed.err.contains("rank 1"), "{}", killed.err);
    on_ranks(&place, 4, "train --quiet --threads 1 --resume killed").succeeded();
    assert_same(&place, "one", "killed");

    let (stopped, seconds) = signalled(&place, libc::SIGUSR1, "", "stopped");
    assert!(stopped.code == Some(130) && seconds < 10.0, "{:?} after {seconds} s: {}", stopped.code, stopped.err);
    let said = errors(&stopped);
    assert!(said.len() == 1 && said[0].contains("saved; go on with: ossnet train --resume"), "{}", stopped.err);
    place.run("train --quiet --threads 1 --resume stopped").succeeded();
    assert_same(&place, "one", "stopped");
}

/// Under srun, which leaves processes that wait in MPI to themselves, the others notice a death by connections of their own. mpirun
/// stands for it: it sets what srun does, and is told to let the others live, whereupon its own exit status is 0.
#[test]
fn a_death_is_noticed_where_the_launcher_ends_nobody() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    let as_srun = "export SLURM_STEP_NUM_TASKS=$OMPI_COMM_WORLD_SIZE SLURM_PROCID=$OMPI_COMM_WORLD_RANK \
                   SLURM_LOCALID=$OMPI_COMM_WORLD_LOCAL_RANK SLURM_JOB_ID=7 SLURM_STEP_NODELIST=localhost; \
                   unset ${!OMPI_COMM_WORLD_*}; exec \"$0\" \"$@\"";
    for (rank, dead) in [(1, "rank 1"), (0, "rank 0")] {
        let run = format!("killed-{rank}");
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--enable-recovery", "-n", "2"]);
        command.args(["bash", "-c", as_srun, PROGRAM]).args(RUN.split_whitespace()).args(LONG.split_whitespace());
        command.args(["--quiet", "--out", &run]).current_dir(place.path()).stdin(Stdio::null());
        command.envs(MPI_VARIABLES);
        let begun = place.at(&format!("{run}/o-net-small.safetensors"));
        let variable = format!("SLURM_PROCID={rank}");
        let (killed, seconds) = processes::signalled(&mut command, &begun, libc::SIGKILL, Some(&variable));
        let said = errors(&killed);
        assert!(seconds < 10.0, "{seconds} s: {}", killed.err);
        assert!(said.len() == 1 && said[0].contains(&format!("{dead} has died")), "{}", killed.err);
    }
}

/// A comparison trains each network on all processes and is written by the first: the networks are those of one process where gradients
/// have the same order, two being summed.
#[test]
fn comparisons_are_made_by_all_processes() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    let compare = "compare --data data --preset sample --models o-net-small,unet3d --epochs 2 --threads 1";
    let outcome = on_ranks(&place, 2, &format!("{compare} --folds 2 --out two"));
    assert_eq!((outcome.code, outcome.out.matches("results: ").count()), (Some(0), 0), "{}", outcome.err);
    assert_eq!(outcome.out.matches("report: ").count(), 1, "{}", outcome.out);
    let results = json(&fs::read_to_string(place.at("two/results.json")).unwrap());
    let models = results["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    // Each of the ten cases is validated once, by one of the folds.
    assert!(models.iter().all(|model| model["cases"].as_array().unwrap().len() == 10), "{models:?}");
    assert!(results["device"].as_str().unwrap().starts_with("2 processes, each on "), "{}", results["device"]);
    // Finished folds are known to all; a comparison that is there is not made again.
    fs::remove_file(place.at("two/report.html")).unwrap();
    let again = on_ranks(&place, 2, &format!("{compare} --folds 2 --out two"));
    assert_eq!((again.code, again.err.matches("was finished before").count()), (Some(0), 2), "{}", again.err);
}

/// Folds are trained one after the other by all processes together; the first summarises them.
#[test]
fn folds_are_trained_by_all_processes() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    place.run(&format!("{RUN} --epochs 2 --folds 2 --quiet --out one")).succeeded();
    let outcome = on_ranks(&place, 2, &format!("{RUN} --epochs 2 --folds 2 --out two"));
    assert_eq!((outcome.code, outcome.out.matches("summary: ").count()), (Some(0), 1), "{}", outcome.err);
    for fold in ["fold-1", "fold-2"] {
        let read = |run: &str| fs::read(place.at(&format!("{run}/{fold}/o-net-small.safetensors"))).unwrap();
        assert!(read("one") == read("two"), "{fold}");
    }
    fs::remove_file(place.at("two/summary.json")).unwrap();
    let again = on_ranks(&place, 2, "train --threads 1 --resume two");
    assert_eq!((again.code, again.err.matches("was finished before").count()), (Some(0), 2), "{}", again.err);
}

/// What no process can do is said once.
#[test]
fn several_processes_say_one_line() {
    if !mpi_is_there() {
        return;
    }
    let place = place();
    fs::write(place.at("data/imagesTr/c.nii.gz"), "no scan").unwrap();
    let files = place.files();
    for (ranks, arguments, code, part) in [
        (2, format!("{RUN} --out run"), 1, "c.nii.gz"),
        (3, RUN.replace("data data", "data sample:heads"), 2, "do not divide among 3 processes; give --accumulate 6"),
        (2, format!("{RUN} --graph --out run"), 2, "--graph"),
        (2, "compare --models o-net-small,no-such --epochs 1 --out run".into(), 2, "no-such"),
        (2, "compare --models o-net-small --data data --epochs 1 --out run".into(), 1, "c.nii.gz"),
    ] {
        let outcome = on_ranks(&place, ranks, &arguments);
        let said = errors(&outcome);
        assert_eq!((outcome.code, said.len()), (Some(code), 1), "{arguments}: {}", outcome.err);
        assert!(said[0].contains(part) && outcome.out.is_empty(), "{arguments}: {}", outcome.err);
        assert_eq!(place.files(), files, "{arguments} left something behind");
    }
}

/// Processes that cannot talk to each other do not train side by side.
#[test]
fn processes_without_a_transport_are_refused() {
    let place = place();
    let refused = |variables: &[(&str, &str)], command: &str, parts: &[&str]| {
        let run = |rank: &str| -> Outcome {
            let mut command = place.command(command);
            for (name, value) in variables {
                command.env(name, if *value == "rank" { rank } else { value });
            }
            command.output().unwrap().into()
        };
        run("0").refused(2, parts);
        let other = run("1");
        assert_eq!((other.code, other.out.as_str(), other.err.as_str()), (Some(2), "", ""));
    };
    let torchrun = [("WORLD_SIZE", "2"), ("RANK", "rank"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];
    refused(&torchrun, RUN, &["torchrun", "process 0 of 2", "mpirun or srun", "--device cuda"]);
    refused(&torchrun, "compare --epochs 1", &["torchrun", "process 0 of 2", "mpirun or srun"]);
    place.refuses("compare --cuda-devices 0,0", 2, &["device 0 twice"]);
    if cfg!(not(feature = "mpi")) {
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "rank")];
        refused(&mpirun, RUN, &["mpirun started this as process 0 of 2", "--features mpi"]);
        let srun = [("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "rank")];
        refused(&srun, RUN, &["srun started this as process 0 of 2", "--features mpi"]);
    }
    // A batch script is one process, whatever its job's number of tasks.
    let outcome: Outcome = place.command("train --dump-config").env("SLURM_NTASKS", "4").output().unwrap().into();
    outcome.succeeded();
}
