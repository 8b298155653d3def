//! A part of a cohort: which of the cases are this process's.
//!
//! A case's shard follows from its name and from the number of shards alone. Neither the order of the cases nor what else there
//! is moves it, so that a cohort may grow while its shards run, and a shard that is started again finds its own cases.

use std::fmt;
use std::str::FromStr;

use clap::Args;

use crate::error::{Error, Result};
use crate::rng::Rng;

/// The most shards: what Slurm's arrays admit.
const MOST: usize = 4_000_000;

/// Which shard this process is.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cohorts")]
pub(super) struct ShardArgs {
    /// Segment the cases of one shard only: N of COUNT from 1 on, or `slurm` for what the job array says
    #[arg(long, value_name = "N/COUNT", conflicts_with_all = ["num_parts", "part_id"])]
    shard: Option<Asked>,
    /// The same as nnU-Net says it: the number of parts …
    #[arg(long, value_name = "COUNT", alias = "num_parts", requires = "part_id")]
    num_parts: Option<usize>,
    /// … and this one, from 0 on
    #[arg(long, value_name = "N", alias = "part_id", requires = "num_parts")]
    part_id: Option<usize>,
}

impl ShardArgs {
    /// The shard, if one is asked for.
    ///
    /// # Errors
    /// [`Error::Usage`] for a part that does not exist, or an environment that does not tell.
    pub(super) fn get(&self) -> Result<Option<Shard>> {
        match (self.shard, self.num_parts, self.part_id) {
            (Some(Asked::Given(shard)), ..) => Ok(Some(shard)),
            (Some(Asked::Slurm), ..) => slurm(|name| std::env::var(name).ok()).map(Some),
            (None, Some(count), Some(part)) if part < count && count <= MOST => {
                Ok(Some(Shard { number: part + 1, count }))
            }
            (None, Some(count), Some(part)) => {
                let problem = format!("--part-id {part} of --num-parts {count} does not exist");
                Err(Error::Usage(format!("{problem}; parts are numbered from 0 to one less than their number")))
            }
            _ => Ok(None),
        }
    }
}

/// What `--shard` says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Given(Shard),
    Slurm,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "slurm" => Ok(Asked::Slurm),
            _ => text.parse().map(Asked::Given),
        }
    }
}

/// One of `count` parts of a cohort, the first being number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shard {
    pub(super) number: usize,
    pub(super) count: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((number, count)) if (1..=count).contains(&number) && count <= MOST => Ok(Self { number, count }),
            Some((_, count)) if count <= MOST => {
                Err(format!("shards are numbered from 1 to their number; write for example 1/{}", count.max(1)))
            }
            Some(_) => Err(format!("there are at most {MOST} shards")),
            None => Err(format!("'{text}' is no shard; write for example 3/64, or slurm")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl Shard {
    /// Whether a case is of this shard.
    pub(super) fn has(&self, name: &str) -> bool {
        number_of(name, self.count) == self.number
    }

    /// For names of files: `03-of-64`, so that they sort.
    pub(super) fn tag(&self) -> String {
        let width = self.count.to_string().len();
        format!("{:0width$}-of-{}", self.number, self.count)
    }

    /// The inverse of [`Shard::tag`].
    pub(super) fn from_tag(tag: &str) -> Option<Self> {
        let (number, count) = tag.split_once("-of-")?;
        let shard: Self = format!("{number}/{count}").parse().ok()?;
        (shard.tag() == tag).then_some(shard)
    }
}

/// The number, from 1 on, of the shard that a case belongs to. Summaries on disks rely on it: it must never change.
fn number_of(name: &str, count: usize) -> usize {
    // A stream's first word is as good as uniform, whatever names have in common.
    (Rng::named(0, name).next_u64() % count.max(1) as u64) as usize + 1
}

/// The shard that a Slurm job array's variables tell.
fn slurm(variable: impl Fn(&str) -> Option<String>) -> Result<Shard> {
    let asked = |name: &str| variable(&format!("SLURM_ARRAY_TASK_{name}"));
    let number = |name: &str| asked(name).and_then(|text| text.trim().parse::<usize>().ok());
    let explicit = "write --shard N/COUNT with the numbers themselves";
    let (Some(id), Some(count), Some(least)) = (number("ID"), number("COUNT"), number("MIN")) else {
        let problem = "--shard slurm reads SLURM_ARRAY_TASK_ID, _COUNT and _MIN, which are not all set";
        return Err(Error::Usage(format!("{problem}; submit with sbatch --array, or {explicit}")));
    };
    let (step, most) = (number("STEP").unwrap_or(1).max(1), number("MAX"));
    // A task that is submitted again on its own, or a list of ids, does not tell how the cohort was divided.
    let place = id.checked_sub(least).filter(|offset| offset % step == 0).map(|offset| offset / step);
    let whole = most.is_none_or(|most| most.checked_sub(least).is_some_and(|range| range / step + 1 == count));
    match place {
        Some(place) if whole && place < count && count <= MOST => Ok(Shard { number: place + 1, count }),
        _ => {
            let problem = format!("task {id} of {count} from {least} is of no whole range of ids (--shard slurm)");
            Err(Error::Usage(format!("{problem}; {explicit}, as examples/cluster does")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read_and_written() {
        assert_eq!("3/64".parse(), Ok(Shard { number: 3, count: 64 }));
        for (text, part) in [("0/4", "1/4"), ("5/4", "1/4"), ("1/0", "1/1"), ("3", "3/64"), ("-1/4", "3/64")] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!("1/99999999999".parse::<Shard>().unwrap_err().contains("at most"));
        let shard = Shard { number: 3, count: 64 };
        assert_eq!((shard.tag().as_str(), shard.to_string().as_str()), ("03-of-64", "3/64"));
        assert_eq!(Shard::from_tag("03-of-64"), Some(shard));
        for tag in ["3-of-64", "003-of-64", "65-of-64", "x-of-64", "03"] {
            assert_eq!(Shard::from_tag(tag), None, "{tag}");
        }
    }

    /// Each name has one shard, whatever else there is; the shards of many names are about equal.
    #[test]
    fn a_cohort_is_divided() {
        let names: Vec<String> = (0..6400).map(|i| format!("case_{i:04}")).collect();
        let mut sizes = [0; 64];
        for name in &names {
            let of: Vec<usize> = (1..=64).filter(|&number| Shard { number, count: 64 }.has(name)).collect();
            assert_eq!(of.len(), 1, "{name}");
            sizes[of[0] - 1] += 1;
        }
        // Binomial with mean 100 and standard deviation 9.9; five of them are met once in a million.
        assert!(sizes.iter().all(|&size| (50..=150).contains(&size)), "{sizes:?}");
    }

    /// What was divided by an earlier version must be divided alike by a later one.
    #[test]
    fn the_division_never_changes() {
        let found = ["case_0000", "case_0001", "BraTS20_Training_001", "größe", ""].map(|name| number_of(name, 64));
        assert_eq!(found, PINNED);
    }

    /// By a Philox4x32-10 written in Python.
    const PINNED: [usize; 5] = [24, 47, 27, 37, 24];

    fn from(pairs: &[(&str, &str)]) -> Result<Shard> {
        slurm(|name| {
            let own = name.strip_prefix("SLURM_ARRAY_TASK_")?;
            pairs.iter().find(|(key, _)| *key == own).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn slurm_tells() {
        let shard = |number, count| Shard { number, count };
        let array = |id, count, least, most, step| {
            from(&[("ID", id), ("COUNT", count), ("MIN", least), ("MAX", most), ("STEP", step)])
        };
        assert_eq!(array("0", "64", "0", "63", "1").unwrap(), shard(1, 64));
        assert_eq!(array("64", "64", "1", "64", "1").unwrap(), shard(64, 64));
        assert_eq!(array("7", "4", "1", "7", "2").unwrap(), shard(4, 4));
        assert_eq!(from(&[("ID", "5"), ("COUNT", "3"), ("MIN", "4")]).unwrap(), shard(2, 3));
        // Lists of ids, and tasks that are submitted again.
        for refused in [
            array("3", "2", "3", "17", "1"),
            array("17", "2", "3", "17", "1"),
            array("2", "4", "1", "7", "2"),
            array("0", "4", "1", "4", "1"),
        ] {
            assert!(refused.unwrap_err().to_string().contains("no whole range"));
        }
        for pairs in [&[][..], &[("ID", "3")], &[("ID", "x"), ("COUNT", "3"), ("MIN", "1")]] {
            assert!(from(pairs).unwrap_err().to_string().contains("sbatch --array"));
        }
    }
}
