// Entry of egw-leaderelection-local.so.
#include "election.hpp"

EGW_LEADER_ELECTION_PLUGIN(egw::local::LocalElection, "local", "0.1.0",
                           egw::local::kElectionSchema);
