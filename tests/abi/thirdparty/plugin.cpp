#include "skeleton.hpp"

EGW_DATAPATH_PLUGIN(thirdparty::Skeleton, "thirdparty", "0.1.0", "");
