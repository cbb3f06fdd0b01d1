# Language level, warnings, sanitizers, faster links and rebuilds.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
# -g1 keeps stack traces with lines and halves the size of objects that include LibTorch or gRPC.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-unused-parameter>)

if(ANABRANCH_SANITIZE)
  add_compile_options(-fsanitize=${ANABRANCH_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${ANABRANCH_SANITIZE})
endif()

find_program(ANABRANCH_CCACHE ccache)
if(ANABRANCH_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ANABRANCH_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ANABRANCH_CCACHE})
endif()
find_program(ANABRANCH_MOLD mold)
if(ANABRANCH_MOLD AND NOT ANABRANCH_SANITIZE)
  add_link_options(-fuse-ld=mold)
endif()
