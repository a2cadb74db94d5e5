// Entry of egw-leaderelection-kube.so.
#include "election.hpp"
#include "schema.hpp"

EGW_LEADER_ELECTION_PLUGIN(egw::kube::KubeElection, "kube", "0.1.0", egw::kube::kElectionSchema);
