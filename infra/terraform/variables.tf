variable "name" {
  description = "Name of the cluster and prefix of its resources."
  type        = string
  default     = "vadv"
}

variable "region" {
  description = "AWS region; GPU spot capacity varies widely between regions."
  type        = string
  default     = "eu-central-1"
}

variable "bucket" {
  description = "Name of the bucket for data sets and runs; must be unique across S3."
  type        = string
}

variable "writable_prefixes" {
  description = "Prefixes of the bucket that training may write to; the rest is read-only."
  type        = list(string)
  default     = ["runs", "exports"]
}

variable "admin_cidrs" {
  description = "Address ranges allowed to reach the Kubernetes API."
  type        = list(string)
  validation {
    condition     = length(var.admin_cidrs) > 0 && !contains(var.admin_cidrs, "0.0.0.0/0")
    error_message = "Name the addresses of your administrators; the whole internet is none."
  }
}

variable "gpu_instance_types" {
  description = "Acceptable GPU instance types; more types mean shorter waits for spot capacity."
  type        = list(string)
  default     = ["g6.2xlarge", "g5.2xlarge"]
}

variable "max_gpu_nodes" {
  description = "Maximum number of GPU machines; bounds the cost of a mistake."
  type        = number
  default     = 4
}
