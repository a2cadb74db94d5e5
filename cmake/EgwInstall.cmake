# cmake --install: the component `dev` is what somebody needs who writes a plugin, and nothing else (headers, CMake
# package, example); everything else belongs to the product.
include(CMakePackageConfigHelpers)
set(EGW_INSTALL_INCLUDE include)
set(EGW_INSTALL_PACKAGE lib/cmake/egw)
set(EGW_INSTALL_PLUGINS lib/egw/plugins)

file(STRINGS framework/abi/types.h lines REGEX "^#define EGW_ABI_(MAJOR|MINOR) ")
string(REGEX REPLACE ".*EGW_ABI_MAJOR ([0-9]+).*EGW_ABI_MINOR ([0-9]+).*" "\\1.\\2" EGW_ABI_VERSION "${lines}")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS framework/abi/types.h)

configure_package_config_file(cmake/egwConfig.cmake.in "${CMAKE_BINARY_DIR}/package/egwConfig.cmake"
  INSTALL_DESTINATION ${EGW_INSTALL_PACKAGE} PATH_VARS EGW_INSTALL_INCLUDE EGW_INSTALL_PLUGINS)
# A plugin that wants 1.1 is built with 1.1 and later, not with 2.0.
write_basic_package_version_file("${CMAKE_BINARY_DIR}/package/egwConfigVersion.cmake"
  VERSION ${EGW_ABI_VERSION} COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)

install(DIRECTORY framework/abi framework/sdk DESTINATION ${EGW_INSTALL_INCLUDE}/egw COMPONENT dev
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(FILES cmake/plugin.map cmake/EgwAddPlugin.cmake "${CMAKE_BINARY_DIR}/package/egwConfig.cmake"
  "${CMAKE_BINARY_DIR}/package/egwConfigVersion.cmake" DESTINATION ${EGW_INSTALL_PACKAGE} COMPONENT dev)
install(DIRECTORY plugins/example DESTINATION share/doc/egw COMPONENT dev)
# The folder is there for others' plugins even where none of ours is installed.
install(DIRECTORY DESTINATION ${EGW_INSTALL_PLUGINS} COMPONENT dev)
