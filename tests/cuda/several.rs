//! Several devices train as one: emulated ones, with an emulated NCCL between them.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::cli::{Outcome, Place, data_set, json};
use crate::support::processes::{self, errors};

/// Four cases a step, one a pass; two steps an epoch.
const RUN: &str = "train --preset sample --data data --model o-net-small --points 64 --batch-size 1 --accumulate 4 \
                   --memory-budget 256MiB";

/// For four steps and a validation.
const SHORT: &str = "--epochs 2 --validate-every 2";

/// With a checkpoint behind each step, so that there is time for a signal.
const LONG: &str = "--epochs 12 --save-every 0 --deterministic-reduce";

/// A data set, and NCCL in a folder: a link to the emulator, as which a loader finds the one that is loaded. `None` on a GPU,
/// which has no second one.
fn place() -> Option<Place> {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU has no second one");
        return None;
    }
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b", "c", "d", "e", "f", "g", "h"], &["v"]);
    for folder in ["nccl", "calls"] {
        fs::create_dir(place.at(folder)).unwrap();
    }
    std::os::unix::fs::symlink(cuemu::library().unwrap(), place.at("nccl/libnccl.so.2")).unwrap();
    Some(place)
}

/// The program where there are four devices and NCCL.
fn command(place: &Place, arguments: &str) -> Command {
    let mut command = place.command(arguments);
    command.env("LD_PRELOAD", cuemu::library().unwrap()).env("LD_LIBRARY_PATH", place.at("nccl"));
    command.env("CUEMU_DEVICES", "4").env("CUEMU_LOG", "1").env("CUEMU_COLLECTIVES", place.at("calls"));
    command
}

fn run(place: &Place, arguments: &str) -> Outcome {
    command(place, arguments).output().unwrap().into()
}

/// The calls of NCCL that each rank has made since the last time; all alike, and nothing was found in them.
fn calls(place: &Place, ranks: usize, outcome: &Outcome) -> Vec<String> {
    assert!(!outcome.err.contains("cuemu:"), "{}", outcome.err);
    let of = |rank: usize| {
        let path = place.at(&format!("calls/rank-{rank}"));
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(path).unwrap();
        text.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let first = of(0);
    (1..ranks).for_each(|rank| assert_eq!(of(rank), first, "rank {rank}"));
    first
}

fn checkpoint(place: &Place, run: &str) -> Vec<u8> {
    fs::read(place.at(&format!("{run}/o-net-small.safetensors"))).unwrap()
}

fn losses(place: &Place, run: &str) -> Vec<f64> {
    let log = fs::read_to_string(place.at(&format!("{run}/log.jsonl"))).unwrap();
    log.lines().filter_map(|line| json(line)["loss"].as_f64()).collect()
}

/// One device that accumulates the cases, two and four that divide them: checkpoints are equal to the last byte. Gradients never
/// leave the devices: each pass of a turn is gathered in pieces of 256 KiB on one stream, in the same order on all ranks.
#[test]
fn checkpoints_do_not_depend_on_the_number_of_devices() {
    let Some(place) = place() else { return };
    run(&place, &format!("{RUN} {SHORT} --deterministic-reduce --quiet --device cuda --out one")).succeeded();
    for (ranks, list) in [(2, "1,0"), (4, "0,1,2,3")] {
        let out = format!("run-{ranks}");
        let outcome = run(&place, &format!("{RUN} {SHORT} --deterministic-reduce --cuda-devices {list} --out {out}"));
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        assert_eq!(outcome.out.matches("checkpoint: ").count(), 1, "{}", outcome.out);
        let said = format!("{ranks} processes of a CUDA device each divide each step: 4 passes of batch 1");
        assert_eq!(outcome.err.matches(&said).count(), 1, "{}", outcome.err);
        assert!(checkpoint(&place, "one") == checkpoint(&place, &out), "{ranks} devices");
        let calls = calls(&place, ranks, &outcome);
        let (steps, turns) = (4, 4 / ranks);
        assert!(calls.len() >= steps * turns && calls.len().is_multiple_of(steps * turns), "{calls:?}");
        let is_a_piece =
            |call: &String| call.starts_with("ncclAllGather of ") && call.ends_with(" of type 1 on a stream");
        assert!(calls.iter().all(|call| is_a_piece(call) || call.is_empty()), "{calls:?}");
        // The plan of a rank is what its run costs, to the byte.
        let planned = place.run(&format!("memory --json --run {out} --ranks {ranks} --plan-for sm_80")).succeeded();
        let costs = fs::read_to_string(place.at(&format!("{out}/o-net-small.costs.json"))).unwrap();
        assert_eq!(json(&planned)["peak_bytes"], json(&costs)["peak_bytes"]);
        let text = place.run(&format!("memory --run {out} --ranks {ranks} --plan-for sm_80")).succeeded();
        assert!(text.contains("NCCL's communicator (assumed)"), "{text}");
    }
}

/// With `--sync-norm` batch norms take the statistics of all four cases of a step: one device that makes their passes side by side,
/// two and four end with the same bytes. What passes bring to each norm is gathered on the stream of all else.
#[test]
fn exact_statistics_do_not_depend_on_the_number_of_devices() {
    let Some(place) = place() else { return };
    let run_of = |flags: &str| format!("{RUN} {SHORT} --deterministic-reduce {flags}");
    run(&place, &run_of("--sync-norm --quiet --device cuda --out one")).succeeded();
    run(&place, &run_of("--quiet --device cuda --out apart")).succeeded();
    assert!(checkpoint(&place, "one") != checkpoint(&place, "apart"), "statistics of all cases are those of one");
    let mut gathered = Vec::new();
    for (ranks, list) in [(2, "0,1"), (4, "0,1,2,3")] {
        let out = format!("run-{ranks}");
        let outcome = run(&place, &run_of(&format!("--sync-norm --cuda-devices {list} --out {out}")));
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        assert_eq!(outcome.err.matches("batch norms take the statistics of all 4 cases").count(), 1, "{}", outcome.err);
        assert!(checkpoint(&place, "one") == checkpoint(&place, &out), "{ranks} devices");
        let calls = calls(&place, ranks, &outcome);
        let is_a_gather =
            |call: &String| call.starts_with("ncclAllGather of ") && call.ends_with(" of type 1 on a stream");
        assert!(calls.iter().all(is_a_gather) && calls.len().is_multiple_of(4), "{calls:?}");
        gathered.push(calls.len());
        let planned = place.run(&format!("memory --json --run {out} --ranks {ranks} --plan-for sm_80")).succeeded();
        let costs = fs::read_to_string(place.at(&format!("{out}/o-net-small.costs.json"))).unwrap();
        assert_eq!(json(&planned)["peak_bytes"], json(&costs)["peak_bytes"]);
    }
    // Passes that a rank makes side by side meet once: the meetings are as many, and two gathers of gradients a step fewer.
    assert!(gathered[1] > 4 * 10 && gathered[0] > gathered[1], "{gathered:?}");
}

/// Without the flag there is one sum a step, of all gradients at once. Of two terms it has no order: the bits are those of one
/// device. Of four the second step's loss feels it, by a relative error of 1e-6 in the first's gradients at most.
#[test]
fn one_sum_a_step() {
    let Some(place) = place() else { return };
    // One pass each of one case: by default the two would share their statistics.
    let two = RUN.replace("--accumulate 4", "--accumulate 2 --sync-norm=off");
    run(&place, &format!("{two} --epochs 1 --quiet --device cuda --out one")).succeeded();
    let outcome = run(&place, &format!("{two} --epochs 1 --quiet --cuda-devices 0,1 --out two"));
    let made = calls(&place, 2, &outcome);
    outcome.succeeded();
    assert!(checkpoint(&place, "one") == checkpoint(&place, "two"));
    assert_eq!(made.len(), 4, "{made:?}");
    assert!(made.iter().all(|call| call == &made[0] && call.starts_with("ncclAllReduce of ")), "{made:?}");

    run(&place, &format!("{RUN} --epochs 1 --quiet --device cuda --out four-one")).succeeded();
    run(&place, &format!("{RUN} --epochs 1 --quiet --cuda-devices 0,1 --out four-two")).succeeded();
    let (one, two) = (losses(&place, "four-one"), losses(&place, "four-two"));
    assert_eq!((one.len(), two.len(), one[0]), (2, 2, two[0]));
    assert!((one[1] - two[1]).abs() <= 1e-3 * one[1], "{one:?} {two:?}");
}

/// Starts a run on two devices and sends `signal` to the process of `rank`, or to the one that was started.
fn signalled(place: &Place, rank: Option<usize>, signal: i32, run: &str) -> (Outcome, f64) {
    let mut command = command(place, &format!("{RUN} {LONG} --quiet --cuda-devices 0,1 --out {run}"));
    let begun = place.at(&format!("{run}/o-net-small.safetensors"));
    let variable = rank.map(|rank| format!("RANK={rank}"));
    processes::signalled(&mut command, &begun, signal, variable.as_deref())
}

/// A process that is killed takes all with it within ten seconds, though NCCL would wait for it; one line names it. A signal to
/// the process that was started stops all at the same step, with all saved. One device goes on in both cases, and comes
/// to the bits of one that nobody disturbed.
#[test]
fn devices_end_together_and_one_goes_on() {
    let Some(place) = place() else { return };
    run(&place, &format!("{RUN} {LONG} --quiet --device cuda --out one")).succeeded();
    for rank in [0, 1] {
        let out = format!("killed-{rank}");
        let (killed, seconds) = signalled(&place, Some(rank), libc::SIGKILL, &out);
        assert!(killed.code == Some(137) && seconds < 10.0, "{:?} after {seconds} s: {}", killed.code, killed.err);
        let said = errors(&killed);
        assert!(said.len() == 1 && said[0].contains(&format!("rank {rank} has died")), "{}", killed.err);
        assert!(said[0].contains("--resume"), "{}", killed.err);
    }
    run(&place, "train --quiet --device cuda --memory-budget 256MiB --resume killed-1").succeeded();
    assert!(checkpoint(&place, "one") == checkpoint(&place, "killed-1"));

    let (stopped, seconds) = signalled(&place, None, libc::SIGTERM, "stopped");
    assert!(stopped.code == Some(130) && seconds < 10.0, "{:?} after {seconds} s: {}", stopped.code, stopped.err);
    let said = errors(&stopped);
    assert!(said.len() == 1 && said[0].contains("saved; go on with: ossnet train --resume"), "{}", stopped.err);
    run(&place, "train --quiet --device cuda --memory-budget 256MiB --resume stopped").succeeded();
    assert!(checkpoint(&place, "one") == checkpoint(&place, "stopped"));
}

/// A process as a launcher starts it.
fn launched(place: &Place, arguments: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = command(place, arguments);
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Two processes with these variables, in which `rank` stands for the number; how they end.
fn both(place: &Place, arguments: &str, variables: &[(&str, &str)]) -> [Outcome; 2] {
    let with = |rank: &'static str| -> Vec<(&str, &str)> {
        variables.iter().map(|&(name, value)| (name, if value == "rank" { rank } else { value })).collect()
    };
    ["0", "1"].map(|rank| launched(place, arguments, &with(rank))).map(|child| child.wait_with_output().unwrap().into())
}

/// What torchrun, srun, and mpirun of a program without MPI, set is enough; the store that torchrun keeps at its port is left alone.
#[test]
fn launchers_are_understood() {
    let Some(place) = place() else { return };
    run(&place, &format!("{RUN} --epochs 1 --deterministic-reduce --quiet --device cuda --out one")).succeeded();
    let store = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = store.local_addr().unwrap().port().to_string();
    let torchrun = [
        ("WORLD_SIZE", "2"),
        ("RANK", "rank"),
        ("LOCAL_RANK", "rank"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", port.as_str()),
    ];
    let arguments = format!("{RUN} --epochs 1 --deterministic-reduce --quiet --device cuda --out");
    let [first, second] = both(&place, &format!("{arguments} torchrun"), &torchrun);
    first.succeeded();
    assert_eq!((second.code, second.out.as_str(), second.err.as_str()), (Some(0), "", ""));
    assert!(checkpoint(&place, "one") == checkpoint(&place, "torchrun"));

    let at = format!("127.0.0.1:{}", free_port());
    let mpirun = [
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("OMPI_COMM_WORLD_RANK", "rank"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "rank"),
        ("OSSNET_RENDEZVOUS", at.as_str()),
    ];
    let [first, second] = both(&place, &format!("{arguments} mpirun"), &mpirun);
    first.succeeded();
    second.succeeded();
    assert!(checkpoint(&place, "one") == checkpoint(&place, "mpirun"));

    // srun that was not asked for MPI, whatever the program was built with: the port comes from the job's number.
    let job = std::process::id().to_string();
    let srun = [
        ("SLURM_STEP_NUM_TASKS", "2"),
        ("SLURM_PROCID", "rank"),
        ("SLURM_LOCALID", "rank"),
        ("SLURM_JOB_ID", job.as_str()),
        ("SLURM_STEP_NODELIST", "localhost"),
    ];
    let [first, second] = both(&place, &format!("{arguments} srun"), &srun);
    first.succeeded();
    second.succeeded();
    assert!(checkpoint(&place, "one") == checkpoint(&place, "srun"));

    // A program with MPI hands NCCL's id over by it, and needs no address.
    if !cfg!(feature = "mpi") || Command::new("mpirun").arg("--version").output().is_err() {
        return eprintln!("SKIPPED in part: built without MPI, or no mpirun");
    }
    let own = command(&place, &format!("{arguments} by-mpi"));
    let mut launcher = Command::new("mpirun");
    launcher.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]).arg(own.get_program());
    launcher.args(own.get_args()).current_dir(place.path()).env("OMPI_MCA_mpi_yield_when_idle", "1");
    launcher.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    launcher.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    Outcome::from(launcher.output().unwrap()).succeeded();
    assert!(checkpoint(&place, "one") == checkpoint(&place, "by-mpi"));
}

/// A comparison trains each network on all devices, as one process would, and the first writes it.
#[test]
fn comparisons_are_made_by_all_devices() {
    let Some(place) = place() else { return };
    let compare = "compare --data data --preset sample --models o-net-small --epochs 1 --memory-budget 256MiB";
    let outcome = run(&place, &format!("{compare} --cuda-devices 0,1 --out two"));
    assert_eq!((outcome.code, outcome.out.matches("report: ").count()), (Some(0), 1), "{}", outcome.err);
    let made = calls(&place, 2, &outcome);
    assert!(!made.is_empty(), "no gradients were summed");
    let results = json(&fs::read_to_string(place.at("two/results.json")).unwrap());
    assert_eq!(results["models"][0]["cases"].as_array().unwrap().len(), 1);
    assert!(results["models"][0]["steps"].as_u64() > Some(0));
}

/// What is missing or does not fit is one line, whatever the number of processes; nothing is left behind.
#[test]
fn what_cannot_be_is_said_once() {
    let Some(place) = place() else { return };
    let files = place.files();
    let refused = |outcome: &Outcome, code: i32, parts: &[&str]| {
        outcome.refused(code, parts);
        assert_eq!(place.files(), files, "something was left behind");
    };
    let without = |arguments: &str| -> Outcome {
        command(&place, arguments).env("LD_LIBRARY_PATH", "/nowhere").output().unwrap().into()
    };
    let two = format!("{RUN} --cuda-devices 0,1 --out run");
    refused(&without(&two), 1, &["libnccl.so.2", "libnccl2", "LD_LIBRARY_PATH"]);
    refused(&run(&place, &two.replace("0,1", "0,0")), 2, &["device 0 twice"]);
    refused(&run(&place, &two.replace("0,1", "0,7")), 1, &["no CUDA device 7"]);
    refused(&run(&place, &two.replace("0,1", "0,x")), 2, &["'0,x'"]);
    refused(&run(&place, &format!("{two} --graph")), 2, &["--graph", "omit it"]);
    let fails: Outcome = command(&place, &two).env("CUEMU_FAIL", "ncclCommInitRank=2").output().unwrap().into();
    refused(&fails, 1, &["NCCL says unhandled system error", "NCCL_DEBUG"]);

    // A communicator that fails beside its calls ends all, though what waits for it would wait for ever.
    let fails: Outcome = command(&place, &two).env("CUEMU_FAIL", "ncclCommGetAsyncError=6").output().unwrap().into();
    let said = errors(&fails);
    let expected = "NCCL says remote process exited or there was a network error (6)";
    assert!(fails.code == Some(1) && said.len() == 1 && said[0].contains(expected), "{}", fails.err);
    // Whoever finds it ends all at once: the first process, which holds the folder, may have no time to remove it.
    if place.at("run").exists() {
        fs::remove_dir_all(place.at("run")).unwrap();
    }

    // Both on one device: NCCL refuses that.
    let at = format!("127.0.0.1:{}", free_port());
    let variables = [("WORLD_SIZE", "2"), ("RANK", "rank"), ("LOCAL_RANK", "0"), ("OSSNET_RENDEZVOUS", at.as_str())];
    let quiet = format!("{RUN} --quiet --device cuda --out run");
    let [first, second] = both(&place, &quiet, &variables);
    let said = errors(&first);
    assert!(said.len() == 1 && said[0].contains("a device of its own"), "{}", first.err);
    assert_eq!((first.code, second.code, errors(&second).len()), (Some(1), Some(1), 0), "{}", second.err);

    // Other devices than processes, and no address.
    let variables = [("WORLD_SIZE", "2"), ("RANK", "rank"), ("LOCAL_RANK", "rank")];
    let [first, second] = both(&place, &quiet, &variables);
    refused(&first, 2, &["OSSNET_RENDEZVOUS=HOST:PORT", "MASTER_ADDR"]);
    assert_eq!((second.code, second.err.as_str()), (Some(2), ""));
    let at = format!("127.0.0.1:{}", free_port());
    let variables = [("WORLD_SIZE", "2"), ("RANK", "rank"), ("LOCAL_RANK", "rank"), ("OSSNET_RENDEZVOUS", at.as_str())];
    let [first, second] = both(&place, &quiet.replace("--device cuda", "--cuda-devices 3"), &variables);
    refused(&first, 2, &["names 1 device", "name one for each process"]);
    assert_eq!((second.code, second.err.as_str()), (Some(2), ""));
}

/// Processes of groups of different sizes do not train together, and what listens at the address must be one of them.
#[test]
fn strangers_are_turned_away() {
    let Some(place) = place() else { return };
    let at = format!("127.0.0.1:{}", free_port());
    let quiet = format!("{RUN} --quiet --device cuda --out run");
    let of = |size, rank| -> Vec<(&str, &str)> {
        vec![("WORLD_SIZE", size), ("RANK", rank), ("LOCAL_RANK", rank), ("OSSNET_RENDEZVOUS", at.as_str())]
    };
    let children = [launched(&place, &quiet, &of("2", "0")), launched(&place, &quiet, &of("3", "1"))];
    let [first, second] = children.map(|child| Outcome::from(child.wait_with_output().unwrap()));
    first.refused(1, &["rank 1 of 3 came to those of 2", "OSSNET_RENDEZVOUS"]);
    second.refused(1, &["rank 1 of 3 came to processes of 2", "OSSNET_RENDEZVOUS"]);

    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = stranger.local_addr().unwrap().to_string();
    let variables = [("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1"), ("OSSNET_RENDEZVOUS", at.as_str())];
    let child = launched(&place, &quiet, &variables);
    let (mut connection, _) = stranger.accept().unwrap();
    std::io::Write::write_all(&mut connection, b"HTTP/1.1 400 Bad Request\r\n\r\nwhat do you want here?").unwrap();
    Outcome::from(child.wait_with_output().unwrap()).refused(1, &["is no ossnet that waits"]);
    assert!(!Path::exists(&place.at("run")));
}
