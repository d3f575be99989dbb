//! The same promises on real containers: machines as far as a node can tell, with addresses that change and names that a DNS knows.
//!
//! Three nodes run in `FROM scratch` containers of the shipped Dockerfile, as docker/compose.yaml runs them: one configuration for all,
//! each with a volume of its own, in a private network. The test does to them what happens to containers, always while clients write, and after
//! each case reads back all that was ever acknowledged, and has a client's container run `balsa check --deep`, which finds the nodes by
//! their names. [`engine`] finds or starts what runs containers; [`fleet`] is the cluster.
//!
//! No container reaches anything but the others, and nothing outside reaches them: the network has no way out and no port is published.

mod engine;
mod fleet;

mod faults;
mod members;
mod restored;
mod swapped;
