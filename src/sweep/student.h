// Student's t: what a few seeds can and cannot tell.
#pragma once
#include <vector>

namespace moba::sweep {

double student_cdf(double t, double degrees);
double student_quantile(double probability, double degrees);  // t with student_cdf(t) = probability; +-infinity for degrees 0

double mean(const std::vector<double>& values);
double sum_of_squares(const std::vector<double>& values);  // of deviations from the mean

}  // namespace moba::sweep
