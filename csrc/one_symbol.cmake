# Fails where an object file of kernels.cpp defines another symbol than its peephole::kernels_NAME.
#
# The linker keeps one of several functions with one name, such as an inline one of a header. It may
# be the one compiled for AVX-512, and a lesser processor then stops at an unknown instruction.
# Anonymous namespaces keep names apart.
#
#     cmake -DNM=nm -DOBJECT=kernels.cpp.o -P one_symbol.cmake
execute_process(
  COMMAND ${NM} -g ${OBJECT} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+ [A-TV-Zu] [^\n]+" defined "${symbols}")
list(FILTER defined EXCLUDE REGEX " _*ZN8peephole[0-9]+kernels_[a-z0-9]+E$")
if(defined)
  list(JOIN defined "\n  " defined)
  message(FATAL_ERROR
    "${OBJECT} defines more than its table of kernels; put this into an anonymous namespace:\n"
    "  ${defined}")
endif()
