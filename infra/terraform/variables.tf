variable "name" {
  description = "Name of the cluster and of what belongs to it."
  type        = string
  default     = "vadv"
}

variable "region" {
  description = "AWS region; GPU spot machines differ much between regions."
  type        = string
  default     = "eu-central-1"
}

variable "bucket" {
  description = "Name of the bucket for data sets and runs; must be free in all of S3."
  type        = string
}

variable "writable_prefixes" {
  description = "Prefixes of the bucket that training may write to; everything else it can only read."
  type        = list(string)
  default     = ["runs", "exports"]
}

variable "admin_cidrs" {
  description = "Addresses from which the Kubernetes API may be reached."
  type        = list(string)
  validation {
    condition     = length(var.admin_cidrs) > 0 && !contains(var.admin_cidrs, "0.0.0.0/0")
    error_message = "Name the addresses of your administrators; the whole internet is none."
  }
}

variable "gpu_instance_types" {
  description = "Kinds of GPU machine, any of which will do: more kinds, fewer waits for spot capacity."
  type        = list(string)
  default     = ["g6.2xlarge", "g5.2xlarge"]
}

variable "max_gpu_nodes" {
  description = "GPU machines at most: the bound on what a mistake costs."
  type        = number
  default     = 4
}
