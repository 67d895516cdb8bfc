//! Targets as a flag names them: most names are of one, `redis` is of both ways to use it.

use crate::fleet::Target;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// The targets of one name.
#[derive(Debug, Clone)]
pub(crate) struct Wanted(Vec<Target>);

const REDIS: &str = "redis";
const REDIS_TARGETS: [Target; 2] = [Target::RedisLists, Target::RedisStreams];

impl Wanted {
    /// Takes the names there are, and lists them in the help.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        let single = Target::value_variants().iter().filter_map(Target::to_possible_value);
        let redis = PossibleValue::new(REDIS).help("Redis, by lists and by streams");
        PossibleValuesParser::new(single.chain([redis])).try_map(|name| Self::named(&name))
    }

    /// Those of all names, each once, in this order.
    pub(crate) fn targets(wanted: &[Self]) -> Vec<Target> {
        let mut targets = Vec::new();
        for &target in wanted.iter().flat_map(|Self(named)| named) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }

    fn named(name: &str) -> Result<Self, String> {
        if name == REDIS {
            Ok(Self(REDIS_TARGETS.to_vec()))
        } else {
            Target::from_str(name, false).map(|one| Self(vec![one]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[arg(long, value_delimiter = ',', value_parser = Wanted::parser())]
        target: Vec<Wanted>,
    }

    fn targets(list: &str) -> Result<Vec<Target>, clap::Error> {
        Flags::try_parse_from(["loadtest", "--target", list]).map(|flags| Wanted::targets(&flags.target))
    }

    #[test]
    fn every_peer_goes_by_its_own_name() {
        let wanted =
            [Target::Router, Target::Pipe, Target::Nats, Target::Kafka, Target::RedisLists, Target::RedisStreams];
        assert_eq!(targets("router,pipe,nats,kafka,redis").unwrap(), wanted);
        assert_eq!(targets("redis-streams,redis,redis-lists").unwrap(), [Target::RedisStreams, Target::RedisLists]);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let refused = targets("router,memcached").unwrap_err().to_string();
        assert!(
            refused.contains("memcached") && refused.contains("redis") && refused.contains("rabbitmq"),
            "{refused}"
        );
    }
}
