// Entry of egw-statestore-local.so.
#include "store.hpp"

EGW_STATE_STORE_PLUGIN(egw::local::LocalStore, "local", "0.1.0", egw::local::kStoreSchema);
