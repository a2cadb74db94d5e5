# One CMake target per folder.

# egw_module(name [DEPS modules] [LINK libraries]): framework/<name> as target egw_<name>. A folder
# without .cpp files is an interface library.
function(egw_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp")
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  list(TRANSFORM ARG_DEPS PREPEND egw_)
  if(sources)
    add_library(egw_${name} STATIC ${sources})
    target_link_libraries(egw_${name} PUBLIC egw_flags ${ARG_DEPS} ${ARG_LINK})
  else()
    add_library(egw_${name} INTERFACE)
    target_link_libraries(egw_${name} INTERFACE egw_flags ${ARG_DEPS} ${ARG_LINK})
  endif()
endfunction()

# egw_plugin(kind name SOURCES files [LINK libraries]): a plugin of the product; egw_add_plugin() with our flags and
# folder, and installed.
function(egw_plugin kind name)
  egw_add_plugin(${kind} ${name} ${ARGN})
  set(target egw_${kind}_${name})
  target_link_libraries(${target} PRIVATE egw_flags)
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${EGW_PLUGIN_OUTPUT_DIR}")
  add_dependencies(plugins ${target})
  install(TARGETS ${target} LIBRARY DESTINATION lib/egw/plugins)
endfunction()

# egw_unit_test(name LINK targets [LABEL label] [TIMEOUT s] [SLOW_SHARDS n]): all *.cpp of the current folder as one
# GoogleTest executable, one ctest entry; n of them with a sanitizer, for what takes minutes there: they begin first.
function(egw_unit_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT;SLOW_SHARDS" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp")
  if(NOT sources)
    return()
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  if(EGW_SANITIZE)  # nothing is optimised, and much is looked at, maybe on a busy machine
    math(EXPR ARG_TIMEOUT "15 * ${ARG_TIMEOUT}")
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gmock GTest::gtest_main rapidcheck)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)  # most of the build is theirs
  set(results "--gtest_output=xml:${CMAKE_BINARY_DIR}/results")
  if(NOT EGW_SANITIZE OR NOT ARG_SLOW_SHARDS)
    add_test(NAME ${name} COMMAND ${name} "${results}/${name}.xml")
    set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
    return()
  endif()
  foreach(shard RANGE 1 ${ARG_SLOW_SHARDS})
    math(EXPR index "${shard} - 1")
    add_test(NAME ${name}_${shard} COMMAND ${name} "${results}/${name}_${shard}.xml")
    set_tests_properties(${name}_${shard} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT} COST 300
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${ARG_SLOW_SHARDS};GTEST_SHARD_INDEX=${index}")
  endforeach()
endfunction()

# All plugins of the tree: `ninja plugins`.
add_custom_target(plugins)

# egw_pytest(name FILE file LABEL label [TIMEOUT s] [COST s] [SERIAL] [ENV k=v...]): a pytest file of the current
# folder as one ctest entry. SERIAL: it judges milliseconds, so nothing else runs beside it. COST: about how long it takes,
# for one that takes long beside others, so that it begins first also where ctest has no times of an earlier run.
function(egw_pytest name)
  cmake_parse_arguments(ARG "SERIAL" "FILE;LABEL;TIMEOUT;COST" "ENV" ${ARGN})
  add_test(NAME ${name}
    COMMAND /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider -o junit_logging=system-out
      --junitxml=${CMAKE_BINARY_DIR}/results/${name}.xml "${CMAKE_CURRENT_SOURCE_DIR}/${ARG_FILE}")
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT "${ARG_TIMEOUT}"
    ENVIRONMENT "EGW_BUILD_DIR=${CMAKE_BINARY_DIR};PYTHONDONTWRITEBYTECODE=1;${ARG_ENV}")
  if(ARG_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
  if(ARG_COST)
    set_tests_properties(${name} PROPERTIES COST ${ARG_COST})
  endif()
endfunction()
