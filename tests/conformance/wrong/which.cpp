// Which fault a library has, and on which right one: all that differs between the wrong datapaths.
#include "which.hpp"

namespace wrong {

const char* const kPluginName = "wrong-" WRONG_FAULT;
const char* const kFaultName = WRONG_FAULT;
const char* const kRightOne = WRONG_BASE;

}  // namespace wrong
