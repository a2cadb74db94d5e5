// Entry of egw-statestore-kube.so.
#include "schema.hpp"
#include "store.hpp"

EGW_STATE_STORE_PLUGIN(egw::kube::KubeStore, "kube", "0.1.0", egw::kube::kStoreSchema);
