//! placeholder: threads and sockets (helper "server").
pub mod dispatch;
pub mod worker;
