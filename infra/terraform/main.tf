# A Kubernetes cluster on AWS with a GPU pool on spot machines, a bucket, and a least-privilege role for training.
#
#   terraform -chdir=infra/terraform init
#   terraform -chdir=infra/terraform apply -var bucket=YOUR-BUCKET

terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.80"
    }
  }
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { project = "vadv" }
  }
}

data "aws_availability_zones" "here" {
  state = "available"
}

module "vpc" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "~> 5.16"

  name               = var.name
  cidr               = "10.20.0.0/16"
  azs                = slice(data.aws_availability_zones.here.names, 0, 2)
  private_subnets    = ["10.20.0.0/20", "10.20.16.0/20"]
  public_subnets     = ["10.20.240.0/24", "10.20.241.0/24"]
  enable_nat_gateway = true
  single_nat_gateway = true
}

# Traffic between workers and the bucket stays inside the network and is free.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = module.vpc.vpc_id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = module.vpc.private_route_table_ids
}

module "eks" {
  source  = "terraform-aws-modules/eks/aws"
  version = "~> 20.31"

  cluster_name                             = var.name
  cluster_version                          = "1.33"
  vpc_id                                   = module.vpc.vpc_id
  subnet_ids                               = module.vpc.private_subnets
  cluster_endpoint_public_access           = true
  cluster_endpoint_public_access_cidrs     = var.admin_cidrs
  enable_cluster_creator_admin_permissions = true
  enable_irsa                              = true

  eks_managed_node_groups = {
    system = {
      instance_types = ["m7i.xlarge"]
      min_size       = 1
      max_size       = 2
      desired_size   = 1
    }
    gpu_spot = {
      ami_type       = "AL2023_x86_64_NVIDIA"
      instance_types = var.gpu_instance_types
      capacity_type  = "SPOT"
      min_size       = 0
      max_size       = var.max_gpu_nodes
      desired_size   = 0
      disk_size      = 100
      labels         = { "vadv.dev/pool" = "gpu-spot" }
      taints = {
        gpu  = { key = "nvidia.com/gpu", value = "true", effect = "NO_SCHEDULE" }
        spot = { key = "vadv.dev/spot", value = "true", effect = "NO_SCHEDULE" }
      }
    }
  }
}

resource "aws_s3_bucket" "runs" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "runs" {
  bucket                  = aws_s3_bucket.runs.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "runs" {
  bucket = aws_s3_bucket.runs.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Parts of aborted uploads are invisible but still billed.
resource "aws_s3_bucket_lifecycle_configuration" "runs" {
  bucket = aws_s3_bucket.runs.id
  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }
}

data "aws_iam_policy_document" "worker" {
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.runs.arn]
  }
  statement {
    sid       = "ReadData"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.runs.arn}/*"]
  }
  statement {
    sid       = "WriteRuns"
    actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = [for prefix in var.writable_prefixes : "${aws_s3_bucket.runs.arn}/${prefix}/*"]
  }
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [module.eks.oidc_provider_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${module.eks.oidc_provider}:sub"
      values   = ["system:serviceaccount:vadv:vadv-worker"]
    }
    condition {
      test     = "StringEquals"
      variable = "${module.eks.oidc_provider}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-worker"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "worker" {
  name   = "bucket"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}
