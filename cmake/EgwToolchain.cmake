# Language level, warnings as errors, sanitizers, output folders.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
# Plugins lie beside the binary as in an installation: <prefix>/bin/egw, <prefix>/lib/egw/plugins.
set(EGW_PLUGIN_OUTPUT_DIR "${CMAKE_BINARY_DIR}/lib/egw/plugins")

set(EGW_SANITIZE "" CACHE STRING "Sanitizers: empty, address (with undefined) or thread")

add_library(egw_flags INTERFACE)
target_include_directories(egw_flags INTERFACE "${CMAKE_BINARY_DIR}/include")
target_compile_options(egw_flags INTERFACE -Wall -Wextra -Wshadow -Werror -pthread
  # mismatched-new-delete: g++ 12 misreads the frame allocation of Asio's coroutines.
  "$<$<COMPILE_LANGUAGE:CXX>:-Wconversion;-Wno-mismatched-new-delete>")
target_link_options(egw_flags INTERFACE -pthread)
# The preset compiles for address with -O0: with -O1 g++ takes up to twice the time.
if(EGW_SANITIZE)
  # g++'s instrumentation makes it see uninitialized reads in libstdc++'s <regex>.
  target_compile_options(egw_flags INTERFACE -Wno-maybe-uninitialized)
endif()
if(EGW_SANITIZE STREQUAL "address")
  target_compile_options(egw_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer)
  target_link_options(egw_flags INTERFACE -fsanitize=address,undefined)
elseif(EGW_SANITIZE STREQUAL "thread")
  # Asio fences its operation queue, which TSan cannot model and g++ warns about.
  target_compile_options(egw_flags INTERFACE -fsanitize=thread -Wno-tsan -fno-omit-frame-pointer)
  target_link_options(egw_flags INTERFACE -fsanitize=thread)
elseif(EGW_SANITIZE)
  message(FATAL_ERROR "EGW_SANITIZE=${EGW_SANITIZE}: want empty, address or thread")
endif()

# What sources share is read and instrumented once, which halves the build. `clang-tidy --changed` shows of a source that it
# can be compiled alone.
option(EGW_UNITY "Compile five sources of a target as one; OFF for work on single sources" ON)
if(EGW_UNITY)
  set(CMAKE_UNITY_BUILD ON)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 5)
  # A source is the only one that knows its classes also when it is compiled with others.
  target_compile_options(egw_flags INTERFACE "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>")
endif()

find_program(EGW_CCACHE ccache)
if(EGW_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER "${EGW_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${EGW_CCACHE}")
endif()
