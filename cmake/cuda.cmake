# The CUDA side: kernels/*/*_cuda.cu by nvcc, *_cuda.cpp by the host compiler; cudart is linked statically, cuBLASLt is opened
# at run time. Included by kernels/CMakeLists.txt when MOBA_CUDA is on.
find_package(CUDAToolkit 12.9 REQUIRED)
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120-virtual)
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)

file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*/*_cuda.cu ${CMAKE_CURRENT_SOURCE_DIR}/*/*_cuda.cpp)
list(FILTER cuda_sources EXCLUDE REGEX "_no_cuda\\.cpp$")
target_sources(moba_kernels PRIVATE ${cuda_sources})
target_link_libraries(moba_kernels PUBLIC CUDA::cudart_static ${CMAKE_DL_LIBS})
target_include_directories(moba_kernels PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
