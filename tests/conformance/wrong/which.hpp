// What which.cpp says of a library, which is compiled for each; wrapper.cpp and faults.cpp once for
// all of them. Called by wrapper.cpp.
#pragma once

namespace wrong {

extern const char* const kPluginName;
extern const char* const kFaultName;
extern const char* const kRightOne;  // a library's path

}  // namespace wrong
