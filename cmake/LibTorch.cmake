# Imported target anabranch::torch: LibTorch's CPU libraries, from an installation named by Torch_DIR
# (.../torch/share/cmake/Torch) or from the one deploy/setup made. TorchConfig.cmake is not used: it
# asks for a full CUDA toolkit even where only the CPU libraries are linked.
set(ANABRANCH_TORCH_VERSION 2.11.0)
if(NOT Torch_DIR)
  if(DEFINED ENV{Torch_DIR})
    set(Torch_DIR $ENV{Torch_DIR})
  else()
    if(DEFINED ENV{XDG_CACHE_HOME})
      set(_cache $ENV{XDG_CACHE_HOME})
    else()
      set(_cache $ENV{HOME}/.cache)
    endif()
    file(GLOB _found ${_cache}/anabranch/torch-${ANABRANCH_TORCH_VERSION}/lib/python3*/site-packages/torch/share/cmake/Torch)
    if(_found)
      list(GET _found 0 Torch_DIR)
    endif()
  endif()
endif()
if(NOT Torch_DIR OR NOT EXISTS ${Torch_DIR})
  message(FATAL_ERROR "LibTorch was not found. Run deploy/setup, or set Torch_DIR to the folder "
                      "share/cmake/Torch of a LibTorch ${ANABRANCH_TORCH_VERSION}.")
endif()
set(Torch_DIR ${Torch_DIR} CACHE PATH "share/cmake/Torch of a LibTorch" FORCE)
get_filename_component(ANABRANCH_TORCH_ROOT ${Torch_DIR}/../../.. ABSOLUTE)
get_filename_component(_site ${ANABRANCH_TORCH_ROOT}/.. ABSOLUTE)
file(GLOB _nvidia_libs ${_site}/nvidia/*/lib)

add_library(anabranch_torch INTERFACE)
target_include_directories(anabranch_torch SYSTEM INTERFACE ${ANABRANCH_TORCH_ROOT}/include)
# Protobuf must come before torch on the link line: torch exports some of its symbols.
target_link_libraries(anabranch_torch INTERFACE
  protobuf::libprotobuf -Wl,--no-as-needed ${ANABRANCH_TORCH_ROOT}/lib/libtorch_cpu.so
  ${ANABRANCH_TORCH_ROOT}/lib/libc10.so -Wl,--as-needed)
set(_rpath ${ANABRANCH_TORCH_ROOT}/lib ${_nvidia_libs})
foreach(_dir IN LISTS _rpath)
  target_link_options(anabranch_torch INTERFACE -Wl,-rpath,${_dir} -Wl,-rpath-link,${_dir})
endforeach()
add_library(anabranch::torch ALIAS anabranch_torch)
