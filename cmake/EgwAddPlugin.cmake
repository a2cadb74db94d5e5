# egw_add_plugin(kind name SOURCES files [LINK libraries]): the library egw-<kind>-<name>.so with its one exported
# symbol, as target egw_<kind>_<name>. kind: datapath, statestore or leaderelection. C, C++ or anything that CMake
# compiles. In the tree and, installed with the package, out of it.
set(EGW_PLUGIN_MAP "${CMAKE_CURRENT_LIST_DIR}/plugin.map")

function(egw_add_plugin kind name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  if(NOT kind MATCHES "^(datapath|statestore|leaderelection)$")
    message(FATAL_ERROR "egw_add_plugin(${kind} ${name}): the kind is datapath, statestore or leaderelection")
  endif()
  if(NOT name MATCHES "^[a-z0-9-]+$")
    message(FATAL_ERROR "egw_add_plugin(${kind} ${name}): a name is 1 to 32 of a-z, 0-9 and -")
  endif()
  if(ARG_UNPARSED_ARGUMENTS OR NOT ARG_SOURCES)
    message(FATAL_ERROR "egw_add_plugin(${kind} ${name}): wants SOURCES files [LINK libraries], "
      "not \"${ARG_UNPARSED_ARGUMENTS}\"")
  endif()
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  set(sdk egw::abi)
  if(CXX IN_LIST languages)
    set(sdk egw::sdk)
  endif()
  set(target egw_${kind}_${name})
  add_library(${target} MODULE ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE ${sdk} ${ARG_LINK})
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL "-Wl,--version-script=${EGW_PLUGIN_MAP}")
  if(NOT EGW_SANITIZE)
    target_link_options(${target} PRIVATE -Wl,-z,defs)
  endif()
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME "egw-${kind}-${name}"
    LINK_DEPENDS "${EGW_PLUGIN_MAP}" POSITION_INDEPENDENT_CODE ON
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()
